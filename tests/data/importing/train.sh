#!/bin/bash
# Trains Elena: python old_train_network.py --network_dim 4
IMAGES="/data/images"
touch executed; rm -f "$IMAGES/old"

accelerate launch --num_cpu_threads_per_process 1 --mixed_precision bf16 \
  "sd-scripts/flux_train_network.py" \
  --pretrained_model_name_or_path models/flux1-dev.safetensors --clip_l=models/clip_l.safetensors \
  --t5xxl 'models/t5 xxl.safetensors' --ae models/ae.safetensors \
  --train_data_dir "${IMAGES}/elena" \
  --network_module networks.lora_flux --network_dim 16 --network_alpha 8 --network_train_unet_only \
  --network_args "train_double_block_indices=0-3" "split_qkv=True" \
  --optimizer_type adamw8bit --optimizer_args weight_decay=0.01 --learning_rate 1e-4 \
  --max_train_step 1600 --mixed_precision bf16 --gradient_checkpointing --cache_latents --sdpa \
  --cache_text_encoder_outputs --resolution 512,512 --caption_extension=".txt" \
  --output_dir "/data/my loras" --output_name "elena v2" 2>&1 | tee train.log
